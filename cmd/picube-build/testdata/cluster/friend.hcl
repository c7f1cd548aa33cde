cube "friend" {
  nodes    = 1
  number   = 2
  hostname = "friend${node.number}"
  board    = "rpi3"

  base "debian" {
    suite = "trixie"
  }

  kubernetes {
    version       = "1.34.4"
    control_plane = 1
    images        = ["IMAGE"]
  }
}
