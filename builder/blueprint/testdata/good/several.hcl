# Two cubes of one cluster and one of its own.
cube "first" {
  nodes = 2
}
cube "second" {
  nodes    = 2
  hostname = "${cube.name}${cube.number}-n${node.number}"
}
cube "alone" {
  nodes   = 1
  number  = 7
  cluster = "alone"
  network {
    interface = "end0"
    prefix    = "192.168.7.0/24"
    dhcp      = false
    dns       = ["9.9.9.9", "2620:fe::fe"]
  }
  node "alone-1" {
    address  = "192.168.7.77"
    board    = "virt"
    packages = ["mc"]
    labels   = { disk = "nvme" }
    taints   = ["picube/slow=yes:NoSchedule"]
  }
}
