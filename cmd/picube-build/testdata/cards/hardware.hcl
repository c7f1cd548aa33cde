# Cards for the hardware tests: what a node shows, how it is cooled, what it
# hears on the air and what time it is.
cube "hardware" {
  nodes    = 5
  board    = "rpi3"
  packages = ["dnsmasq-base", "hostapd", "iw"]

  display "hd44780" {}
  display "console" { on = ["rpi1"] }
  fan "pwm" {
    pin   = 18
    start = 60
    stop  = 50
    full  = 80
  }
  fan "gpio" {
    pin   = 17
    start = 60
    stop  = 50
  }
  status {}

  wifi {
    ssid     = "Würzburg"
    psk      = "correct horse battery"
    country  = "DE"
    priority = 10
    on       = ["rpi1"]
  }
  wifi {
    ssid     = "third generation"
    psk      = "battery, staple"
    security = "wpa3"
    country  = "DE"
    on       = ["rpi1"]
  }
  wifi {
    ssid_hex = "00ff22270a"
    psk      = "not to be seen"
    hidden   = true
    country  = "DE"
    on       = ["rpi1"]
  }
  wifi {
    ssid     = "new password"
    psk      = "the old password"
    country  = "DE"
    on       = ["rpi1"]
  }
  wifi {
    ssid     = "station"
    security = "open"
    country  = "DE"
    on       = ["rpi1"]
  }
}
