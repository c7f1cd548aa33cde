# Written by picube-build. Keep it with the blueprint; "picube-build update" renews it.

format  = 1
created = "2026-11-22T01:02:03Z"

suite "debian" "trixie" {
  version = "13.7"
  date    = "2026-09-12T07:55:41Z"
  sha256  = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
}

suite "debian-security" "trixie-security" {
  date   = "2026-11-20T00:12:42Z"
  sha256 = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
}

input "kubernetes/kubelet" {
  version = "v1.34.4"
  source  = "go"
  path    = "k8s.io/kubernetes/cmd/kubelet"
  size    = 1099511627776
  sha256  = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
}

packages "node" "arm64" {
  requests = [
    "curl",
    "htop (>= 3)",
  ]

  package "curl" {
    version = "8.14.1-2"
    arch    = "arm64"
    archive = "debian"
    path    = "pool/main/c/curl/curl_8.14.1-2_arm64.deb"
    size    = 300000
    sha256  = "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"
    by      = "picube.hcl"
  }

  package "libc6" {
    version = "2.41-12"
    arch    = "arm64"
    archive = "debian"
    path    = "pool/main/g/glibc/libc6_2.41-12_arm64.deb"
    size    = 2500000
    sha256  = "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"
    by      = "curl"
  }
}
