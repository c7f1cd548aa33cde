cube "picube" {
  nodes = 5
  board = "rpi3
}
