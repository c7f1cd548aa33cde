# Eight cubes of four nodes, one Kubernetes cluster. Cubes may be built later
# and plugged in one by one: add them at the end of this file, build the new
# cards with --node, and they join by themselves.
#
# The original had Raspberry Pi 2 boards; these are Raspberry Pi 3.

cube "kube1" {
  nodes    = 4
  hostname = "${cube.name}-${node.number}" # kube1-1 ... kube1-4

  # kube1-1 runs the control plane; all others work. The cubes below have no
  # block of their own and join this one.
  kubernetes {
    version       = "1.34.4"
    control_plane = 1
  }
}

# A node's cube is its zone: topology.kubernetes.io/zone=kube2, ...
cube "kube2" { nodes = 4 }
cube "kube3" { nodes = 4 }
cube "kube4" { nodes = 4 }
cube "kube5" { nodes = 4 }
cube "kube6" { nodes = 4 }
cube "kube7" { nodes = 4 }
cube "kube8" { nodes = 4 }
