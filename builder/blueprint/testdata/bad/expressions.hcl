variable "psk" {
  type      = number
  sensitive = true
}
variable "twice" { default = 1 }
variable "twice" { default = 2 }
variable "kind" {
  type    = strin
  default = "x"
}
variable "wrong" {
  type    = list(string)
  default = 5
}
variable "rule" {
  default = "a"
  validation {
    condition     = length(var.rule) > 3
    error_message = "Give it more than three characters."
  }
}
variable "small" {
  default = [1]
  validation {
    condition     = length(var.small) > 1
    error_message = "Give it more than one element."
  }
}
locals {
  a = local.b
  b = local.a
  c = var.twicee
}
cube "picube" {
  nodes    = "many"
  packages = [upppercase("x"), file("missing.txt"), env("MISSING"), local.aa]
  board    = null
  cluster  = var.secret
  number   = cube.nam
}
variable "secret" {
  sensitive = true
}
