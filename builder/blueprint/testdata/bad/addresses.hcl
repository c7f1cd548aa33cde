cube "a" {
  nodes = 20
  network { prefix = "10.0.0.0/28" }
}
cube "b" {
  nodes   = 3
  cluster = "b"
  number  = 300
  network { prefix = "10.1.0.7/16" }
  node "b-1" { address = "10.9.0.1" }
  node "b-2" { address = "fe80::1" }
}
cube "c" {
  nodes   = 3
  cluster = "c"
  node "c-2" { address = "10.42.3.3" }
  node "c-4" {}
  node "c-3" {}
  node "c-3" {}
}
cube "d" {
  nodes   = 2
  number  = 3
  cluster = "d"
}
