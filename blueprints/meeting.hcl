# Three cubes of one identity. Alpha and beta have clusters of their own, on
# whatever table they stand; plugged together, they become one.
cube "alpha" {
  nodes = 5

  kubernetes {
    control_plane = 1

    merge {
      mode = "auto" # or "ask", or "off"
      lead = "alpha"
    }
  }
}

cube "beta" {
  nodes         = 5
  control_plane = 1
}

# Without a control plane: these join alpha's cluster.
cube "gamma" {
  nodes = 3
}
