cube "a" {
  nodes = 1
  base "debain" {}
}
cube "b" {
  nodes = 1
  base "image" {}
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
