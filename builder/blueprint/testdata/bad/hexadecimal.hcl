cube "picube" {
  nodes = 0x
  number = 0x123456789
}
