cube "picube" { nodes = 5 }
