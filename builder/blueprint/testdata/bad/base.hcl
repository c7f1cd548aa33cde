cube "a" {
  nodes = 1
  base "debain" {}
}
cube "b" {
  nodes = 1
  base "image" {}
}
cube "d" {
  nodes = 1
  base "image" {
    source = "ftp://example.org/raspios.img.xz"
    sha256 = "cafe"
    suite  = "trixie"
  }
}
cube "c" {
  nodes = 1
  base "debian" {
    suite      = "trixi"
    components = ["mian"]
    mirror     = "ftp://deb.example.org"
  }
  base "debian" {}
  packages = ["htop=3.0"]
  debconf  = ["x"]
  node "c-1" {
    labels = { "a b" = "c" }
    taints = ["x"]
  }
}
