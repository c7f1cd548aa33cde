cube "picube" {
  nodes    = 5
  hostname = "rpi${node.number}"
  board    = "rpi3"

  base "debian" {
    suite      = "trixie"
    components = ["main", "contrib", "non-free-firmware"]
    mirror     = "http://deb.example.org/debian/"
    snapshot   = "https://snapshot.example.org/archive/debian"
    recommends = true
  }
  packages = ["sysbench", "htop", "htop"]
  debconf  = { "tzdata/Areas" = "Europe" }

  wifi {
    ssid    = "WLAN"
    psk     = "correct horse"
    country = "DE"
  }
  wifi {
    ssid_hex = "ff00fe"
    security = "open"
    country  = "DE"
    hidden   = true
    priority = 10
    on       = ["rpi1", "rpi2"]
  }
  kubernetes {
    version       = "v1.34.4"
    control_plane = 3
    images        = ["docker.io/library/nginx:1.29"]
    manifests     = ["hello.yaml"]
    kubelet_args  = { "max-pods" = 50 }
    source        = "mirror"
    mirror        = "http://10.0.0.1:5000"

    backups {
      every = "90m"
      keep  = 5
    }
  }
  display "hd44780" {
    on      = ["rpi1"]
    address = 0x3F
    columns = 20
    rows    = 4

    seconds   = 5.5
    backlight = "07:00-22:00"
    farewell  = "Gute Nacht"
    glyph "heart" {
      rows = [".....", ".#.#.", "#####", "#####", ".###.", "..#..", ".....", "....."]
    }
    page {
      lines = ["{{.Host}} {{glyph \"heart\"}}", "{{.Address}}"]
    }
  }
  display "console" {}
  fan "gpio" {
    pin   = 18
    start = 60.5
    stop  = 50
    tach  = 24

    sensor = "cube"
  }
  fan "pwm" {
    on       = ["rpi2"]
    full     = 75
    min_duty = 0.25
  }
  fan "firmware" { on = ["rpi5"] }
  fan "always" { on = ["rpi4"] }
  time {
    zone    = "Europe/Berlin"
    servers = ["ntp.example.org", "192.168.1.1"]
  }
  status {}
  node "rpi4" { board = "rpi4" }
  node "rpi5" { board = "rpi5" }
}
