# Three Raspberry Pi 5 with Raspberry Pi's own kernel and firmware under a
# Debian that is otherwise plain: base "raspios" takes both from Raspberry Pi's
# signed archive.

cube "pi5" {
  nodes = 3
  board = "rpi5"

  base "raspios" {
    suite = "trixie"
  }

  kubernetes {
    control_plane = 3
  }

  # The Active Cooler, on its own plug, turns as the firmware says.
  fan "firmware" {}
}
