# Raspberry Pi OS as its maker publishes it, on four Raspberry Pi 4 that come up
# with names, addresses, keys and a cluster of their own.

cube "raspios" {
  nodes = 4
  board = "rpi4"

  base "image" {
    source = "https://downloads.raspberrypi.com/raspios_lite_arm64/images/raspios_lite_arm64-2026-09-15/2026-09-15-raspios-trixie-arm64-lite.img.xz"
    sha256 = "cdf4f3bfac35ae947b46e4e767f935453810549779ac3290e05a6754aee627e5"
  }

  kubernetes {}

  # From the archives that the image's own apt knows.
  packages = ["htop"]

  # The image's config.txt stays as it is: what your boards need, you write
  # there.
}
