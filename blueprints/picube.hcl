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
}
