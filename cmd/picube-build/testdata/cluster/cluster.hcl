cube "picube" {
  nodes    = NODES
  hostname = "rpi${node.number}"
  board    = "rpi3"

  base "debian" {
    suite = "trixie"
  }

  kubernetes {
    version       = "1.34.4"
    control_plane = CONTROL
    images        = ["IMAGE"]
    manifests     = ["web.yaml"]
  }

  # All that picube-node may have to do, for the sake of its memory.
  display "hd44780" {
    on      = ["rpi1"]
    address = 0x27
  }
  display "console" {}
  fan "gpio" {
    pin   = 18
    start = 60
    stop  = 50
  }
  status {}
}
