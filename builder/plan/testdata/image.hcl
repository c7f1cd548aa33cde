cube "onimage" {
  nodes    = 2
  board    = "rpi4"
  packages = ["htop"]

  base "image" {
    source = "images/2025-10-01-raspios-trixie-arm64-lite.img.xz"
    sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  }
  archive "further" {
    url      = "http://archive.example.org/debian"
    suites   = ["trixie"]
    key      = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
    priority = 990
  }
}
