# Two cubes of one cluster, of mixed boards.
cube "front" {
  nodes    = 3
  hostname = "f${node.number}"
  kubernetes {}
  wifi {
    ssid    = "WLAN"
    psk     = "correct horse"
    country = "DE"
  }
  user "anne" {
    password_hash = "$6$salt$digest"
    sudo          = true
  }
  node "f3" { board = "rpi4" }
}

cube "back" {
  nodes = 2
  user "anne" {
    password_hash = "$6$salt$digest"
    sudo          = true
  }
  packages = ["htop"]
}
