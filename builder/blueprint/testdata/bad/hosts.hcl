cube "a" {
  nodes    = 3
  hostname = "rpi"
}
cube "b" {
  nodes    = 2
  hostname = "rpi${node.number}"
}
cube "c" {
  nodes    = 2
  hostname = "rpi${node.number}"
}
cube "c" { nodes = 1 }
