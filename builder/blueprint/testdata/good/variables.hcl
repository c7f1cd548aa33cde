variable "count" {
  type        = number
  default     = 2
  description = "How many nodes."
  validation {
    condition     = var.count > 1
    error_message = "A cube has at least two nodes."
  }
}
variable "extra" {
  type    = list(string)
  default = []
}
variable "wifi_psk" {
  type      = string
  sensitive = true
}
variable "hash" {
  sensitive = true
}
locals {
  stem  = "${lower("PI")}-${local.place}"
  place = "attic"
}
cube "lab" {
  nodes    = var.count
  hostname = "${local.stem}-${format("%02d", node.number)}"
  packages = concat(var.extra, ["htop"], split(",", file("packages.txt")))
  wifi {
    ssid    = "WLAN"
    psk     = "${var.wifi_psk}!"
    country = env("COUNTRY", "DE")
  }
  user "anne" {
    authorized_keys = ssh_keys()
    password_hash   = var.hash
    groups          = ["i2c", "gpio"]
    sudo            = true
    shell           = "/bin/sh"
  }
  user "bob" {}
}
