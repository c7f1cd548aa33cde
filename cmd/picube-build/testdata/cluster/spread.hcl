cube "alpha" {
  nodes    = 1
  hostname = "alpha${node.number}"
  board    = "rpi3"

  base "debian" {
    suite = "trixie"
  }

  kubernetes {
    version       = "1.34.4"
    control_plane = 1

    merge {
      lead = "alpha"
    }
  }
}

cube "beta" {
  nodes         = 1
  hostname      = "beta${node.number}"
  board         = "rpi3"
  control_plane = 1

  base "debian" {
    suite = "trixie"
  }
}

cube "gamma" {
  nodes         = 1
  hostname      = "gamma${node.number}"
  board         = "rpi3"
  control_plane = 1

  base "debian" {
    suite = "trixie"
  }
}
