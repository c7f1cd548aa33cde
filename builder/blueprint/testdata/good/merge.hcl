# Three cubes: two begin clusters, the third belongs to the first one's.
cube "alpha" {
  nodes = 2
  kubernetes {
    control_plane = ["rpi2"]
    merge {
      mode = "ask"
      lead = "beta"
    }
  }
}
cube "beta" {
  nodes         = 3
  control_plane = 3
}
cube "gamma" {
  nodes = 1
}
