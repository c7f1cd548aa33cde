# The five-node PiCube. Build it with:
#
#     go run ./cmd/picube-build blueprints/picube.hcl
#
# and write out/picube/rpi1.img ... rpi5.img to five SD cards. Every setting
# that isn't here has a default; README.md in this folder lists them all.

cube "picube" {
  nodes    = 5
  hostname = "rpi${node.number}" # rpi1 ... rpi5

  # Which Raspberry Pi: rpi3, zero2w, rpi4, cm4, or virt for QEMU. These four
  # Pis can share a card; a node of another kind gets a block of its own:
  #
  #     node "rpi5" { board = "rpi4" }
  board = "rpi3"

  base "debian" {
    suite = "trixie"
  }

  # The nodes form a Kubernetes cluster when they are switched on, without the
  # internet: what it needs is on the cards. Then, on the laptop:
  #
  #     kubectl --kubeconfig out/picube/kubeconfig get nodes
  #
  # Without this block the nodes are nodes.
  kubernetes {
    version       = "1.34.4"
    control_plane = 1 # rpi1; the others work
  }

  # Debian packages on every node, beside what it needs to run.
  packages = ["htop", "sysbench"]

  # Without a user block there is the user "pirate", who may use sudo, and the
  # build makes a key pair, so that this works:
  #
  #     ssh -F out/picube/ssh_config rpi1
  #
  # With a block, your own keys open the door:
  #
  #     user "anne" {
  #       authorized_keys = ssh_keys() # the public keys in ~/.ssh
  #       sudo            = true
  #     }

  # The LCD on the cube's front: 16x2 behind a PCF8574 on I2C. Its pages can be
  # your own; "picube-build display" paints them.
  display "hd44780" {
    on      = ["rpi1"]
    address = 0x27
    columns = 16
    rows    = 2
  }

  # The fan hangs on 5 V and always turns. One on a pin turns when it is warm:
  #
  #     fan "gpio" {
  #       pin   = 18
  #       start = 60 # °C
  #       stop  = 50
  #     }
  fan "always" {}
}
