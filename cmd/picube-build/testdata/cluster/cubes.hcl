cube "alpha" {
  nodes    = 1
  hostname = "rpi1"
  board    = "rpi3"

  base "debian" {
    suite = "trixie"
  }

  kubernetes {
    version       = "1.34.4"
    control_plane = 1
    images        = ["IMAGE"]
    manifests     = ["web.yaml"]
  }
}

cube "beta" {
  nodes    = 1
  hostname = "rpi2"
  board    = "rpi3"

  base "debian" {
    suite = "trixie"
  }
}
