cube "a" {
  nodes = 1
  archive "Raspi!" {
    url    = "ftp://archive.example.org"
    suites = ["./"]
    key    = "AAAA"
  }
  archive "debian" {
    url      = "http://archive.example.org/debian"
    suites   = []
    key      = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
    priority = 2000
  }
  archive "twice" {}
  archive "twice" {
    url    = "http://archive.example.org/debian"
    suites = ["trixie"]
    key    = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
  }
}
