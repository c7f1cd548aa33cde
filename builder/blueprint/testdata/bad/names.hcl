cube "Pi_Cube" {
  nodes    = 2
  hostname = "Rpi${node.number}"
  user "root" {}
  user "Anne Marie" {}
  user "bob" {}
  user "bob" {
    authorized_keys = ["-----BEGIN OPENSSH PRIVATE KEY-----", "ssh-ed25519 nonsense"]
    password_hash   = "secret"
    shell           = "bash"
    groups          = ["GPIO"]
  }
}
