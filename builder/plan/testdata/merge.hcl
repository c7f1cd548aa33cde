# Two cubes that begin clusters, and one that belongs to the first one's.
cube "alpha" {
  nodes = 2
  kubernetes {
    merge { lead = "beta" }
  }
}
cube "beta" {
  nodes         = 2
  control_plane = 1
}
cube "gamma" {
  nodes = 1
}
