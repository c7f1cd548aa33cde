cube "a" {
  nodes = 2
  kubernetes {
    control_plane = ["rpi1", "b-1", "rpi2"]
    merge {}
  }
}
cube "b" {
  nodes         = 2
  control_plane = ["b-1"]
}
cube "c" {
  nodes         = 2
  cluster       = "c"
  control_plane = 1
}
cube "d" {
  nodes   = 2
  cluster = "d"
  kubernetes {
    merge { lead = "gone" }
  }
}
cube "e" {
  nodes         = 2
  cluster       = "e"
  control_plane = 1
  kubernetes { control_plane = 1 }
}
cube "f" {
  nodes   = 2
  cluster = "f"
  kubernetes {
    merge {
      mode = "aks"
      lead = "gg"
    }
  }
}
cube "g" {
  nodes         = 2
  cluster       = "f"
  control_plane = ["g-1", "f-1", "g-2"]
}
cube "h" {
  nodes         = 3
  cluster       = "f"
  control_plane = 2
  kubernetes {
    merge { mode = "off" }
  }
}
cube "i" {
  nodes   = 1
  cluster = "i"
  kubernetes {
    merge { lead = "k" }
  }
}
cube "j" {
  nodes         = 1
  cluster       = "i"
  control_plane = 3
}
cube "k" {
  nodes   = 1
  cluster = "i"
}
cube "l" {
  nodes         = 1
  cluster       = "i"
  control_plane = ["l-2"]
}
