cube "picube" {
  nodes = 3
  node "rpi3" { board = "virt" }
  wifi {
    ssid = "A"
    psk  = "0123456789"
  }
  wifi {
    ssid     = ""
    psk      = "pässword"
    country  = "FR"
    security = "wep"
    on       = ["rpi1"]
  }
  wifi {
    ssid    = "B"
    country = "DE"
    on      = ["rpi1"]
  }
  wifi {
    country  = "Germany"
    security = "open"
    psk      = "0123456789"
    on       = ["rpi1"]
  }
  display "hd44780" { address = 0x99 }
  display "hd44780" { columns = 17 }
  display "hd44780" {}
  display "oled" {}
  fan "gpio" { pin = 14 }
  fan "gpio" {
    on  = ["rpi2"]
    pin = 40
  }
  fan "pwm" {
    on   = ["rpi2"]
    tach = 18
    full = 40
  }
  fan "gpoi" {}
  time { zone = "Europe/Munich" }
}
