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
}
