cube "a" {
  nodes = 2
  kubernetes {
    version       = "1.34"
    control_plane = ["rpi1", "rpi7"]
    source        = "modul"
    manifests     = ["missing.yaml"]
    images        = ["not an image"]
    kubelet_args  = { "--max-pods" = "50" }
    pod_subnet    = "10.42.0.0/24"
    backups {
      every = "30s"
      keep  = 0
    }
  }
  kubernetes {}
}
cube "b" {
  nodes   = 2
  cluster = "b"
  kubernetes { control_plane = 2 }
}
cube "c" {
  nodes   = 2
  cluster = "b"
  network { prefix = "10.43.0.0/16" }
  kubernetes { version = "1.33.1" }
}
cube "d" {
  nodes   = 2
  cluster = "d"
  kubernetes { control_plane = 3 }
}
