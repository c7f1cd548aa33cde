cube "alpha" {
  nodes    = 3
  hostname = "alpha${node.number}"
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

cube "beta" {
  nodes         = 2
  hostname      = "beta${node.number}"
  board         = "rpi3"
  control_plane = 1

  base "debian" {
    suite = "trixie"
  }
}

# Without a control plane: these join alpha's cluster freshly, for comparison.
cube "gamma" {
  nodes    = 2
  hostname = "gamma${node.number}"
  board    = "rpi3"

  base "debian" {
    suite = "trixie"
  }
}
