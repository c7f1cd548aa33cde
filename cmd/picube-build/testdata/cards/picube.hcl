# The five-node PiCube without what it runs: the tests of cards as such.
cube "picube" {
  nodes    = 5
  hostname = "rpi${node.number}"
  board    = "rpi3"

  base "debian" {
    suite = "trixie"
  }

  packages = ["htop", "sysbench"]
}
