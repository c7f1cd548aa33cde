variable "unset" {
  type = string
}

cube "picube" {
  nodes    = 5
  hostnam  = "rpi${node.number}"
  board    = "rpi33"
  packages = ["htop", "Sysbench"]

  wifi {
    ssid    = "a name that is longer than thirty-two bytes"
    psk     = "short"
    country = "UK"
  }
  fan "gpio" {
    pin   = 2
    start = 40
    stop  = 50
  }
  display "hd44780" {
    on = ["rpi9"]
  }
  usr "anne" {}
}
