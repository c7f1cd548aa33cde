# The original: eight cubes of four Raspberry Pi 2 Model B, one Kubernetes
# cluster. Cubes may be built later and plugged in one by one: add them at the
# end of this file, build the new cards with --node, and they join by themselves.
#
# A control plane needs a 64-bit system, which a Raspberry Pi 2 has not: the
# first node is a Raspberry Pi 3, the other thirty-one work for it.

cube "kube1" {
  nodes    = 4
  board    = "rpi2"
  hostname = "${cube.name}-${node.number}" # kube1-1 ... kube1-4

  node "kube1-1" { board = "rpi3" }

  # The cubes below have no block of their own and join this one.
  kubernetes {
    version       = "1.34.4"
    control_plane = ["kube1-1"]
  }
}

# A node's cube is its zone: topology.kubernetes.io/zone=kube2, ...
cube "kube2" {
  nodes = 4
  board = "rpi2"
}

cube "kube3" {
  nodes = 4
  board = "rpi2"
}

cube "kube4" {
  nodes = 4
  board = "rpi2"
}

cube "kube5" {
  nodes = 4
  board = "rpi2"
}

cube "kube6" {
  nodes = 4
  board = "rpi2"
}

cube "kube7" {
  nodes = 4
  board = "rpi2"
}

cube "kube8" {
  nodes = 4
  board = "rpi2"
}
