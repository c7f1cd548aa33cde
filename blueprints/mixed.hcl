# One cube of what was in the drawer. The 64-bit boards share a root file
# system and could swap their cards; the Raspberry Pi 2 gets a 32-bit one.

cube "mixed" {
  nodes = 5
  board = "rpi3"

  node "rpi2" { board = "rpi2" }
  node "rpi4" { board = "rpi4" }
  node "rpi5" { board = "zero2w" }
}
