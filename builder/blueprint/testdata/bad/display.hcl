cube "picube" {
  nodes = 4
  node "rpi2" { board = "virt" }
  display "hd44780" { address = 0x28 }
  display "hd44780" {
    on   = ["rpi2"]
  }
  display "hd44780" {
    on  = ["rpi3"]
    bus = 5
    backlight = "7-22"
    seconds = 0
    farewell = "The power may be cut now"
    glyph "Heart" { rows = ["#####"] }
    glyph "x" { rows = [".....", ".....", ".....", ".....", ".....", ".....", ".....", "..x.."] }
    glyph "x" { rows = [".....", ".....", ".....", ".....", ".....", ".....", ".....", "....."] }
    page { lines = ["ok", "two {{.Bad}}", "\"{{.Bad}}"] }
    page { lines = [] }
    page {}
  }
  display "console" { on = ["rpi1"] }
  display "console" { on = ["rpi1"] }
  fan "firmware" {}
  fan "gpio" {
    on  = ["rpi2"]
    pin = 9
  }
  fan "pwm" { on = ["rpi2"] }
  fan "pwm" {
    on  = ["rpi3"]
    pin = 17
  }
  fan "pwm" {
    on  = ["rpi4"]
    pin = 12
    sensor = "gpu"
  }
  fan "pwm" {
    on  = ["rpi4"]
    pin = 18
    sensor = "cube"
  }
  fan "gpio" {
    on  = ["rpi1"]
    pin = 2
  }
  display "hd44780" {}
  wifi {
    ssid = "A"
    psk  = "correct horse"
    country = "DE"
    security = "wpa3"
    on = ["rpi1"]
  }
}
