package hypriot_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/hypriot"
)

const deviceInit = `# comment
hostname: "Black-Pearl"
wifi:
  interfaces:
    wlan0:
      ssid: "My ${Network}"
      password: "secret_password"
docker:
  images:
    - "/tmp/hypriot-rpi-swarm.tar"
clusterlab:
  service:
    run_on_boot: "false"
`

const userData = `#cloud-config
hostname: black-pearl
manage_etc_hosts: true
users:
  - default
  - name: pirate
    gecos: "Hypriot Pirate"
    sudo: ALL=(ALL) NOPASSWD:ALL
    shell: /bin/bash
    groups: users,docker,video
    plain_text_passwd: hypriot
    ssh_authorized_keys:
      - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl anne@laptop
  - name: anne
    passwd: $6$salt$0123456789
timezone: "Europe/Berlin"
locale: "de_DE.UTF-8"
packages: [htop, [curl, 1.0]]
write_files:
  - path: /etc/wpa_supplicant/wpa_supplicant.conf
    content: |
      country=de
      network={
        ssid="YourSSID"
        psk="YourSecret"
      }
  - path: /etc/motd
    content: hello
runcmd:
  - 'systemctl restart avahi-daemon'
`

func TestImport(t *testing.T) {
	for _, tt := range []struct{ name, text, blueprint, variables, notes string }{
		{"device-init.yaml", deviceInit, `variable "wifi_psk" {
  type      = string
  sensitive = true
}

cube "black-pearl" {
  nodes    = 1
  hostname = "black-pearl"

  wifi {
    ssid    = "My $${Network}"
    psk     = var.wifi_psk
    country = "DE"
  }
}
`, "wifi_psk = \"secret_password\"\n", `clusterlab: use a kubernetes block instead
docker: name images in a kubernetes block; containers become manifests there
wifi: the country is not said; it was set to DE, change it to yours`},
		{"user-data", userData, `variable "wifi_psk" {
  type      = string
  sensitive = true
}

variable "password_hash" {
  type      = string
  sensitive = true
}

cube "black-pearl" {
  nodes    = 1
  hostname = "black-pearl"
  packages = ["htop"]

  wifi {
    ssid    = "YourSSID"
    psk     = var.wifi_psk
    country = "DE"
  }

  user "pirate" {
    authorized_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl anne@laptop"]
    sudo            = true
    groups          = ["users", "video"]
    shell           = "/bin/bash"
  }

  user "anne" {
    password_hash = var.password_hash
  }

  time {
    zone = "Europe/Berlin"
  }
}
`, "wifi_psk      = \"YourSecret\"\npassword_hash = \"$6$salt$0123456789\"\n", `locale: set it as debconf = { "locales/locales_to_be_generated" = "de_DE.UTF-8 UTF-8" } with the package locales
packages: a version cannot be asked for; the lock holds versions
runcmd: commands are not run; ask for packages and units instead
users: the distribution's default user is not made
users: the group docker is left out, there is no Docker
users: the password of pirate stands there readable; make a hash of it with mkpasswd and give it as password_hash
write_files: /etc/motd is not written`},
	} {
		got, err := hypriot.Import([]byte(tt.text))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct{ want, got string }{
			{tt.blueprint, string(got.Blueprint)}, {tt.variables, string(got.Variables)}, {tt.notes, strings.Join(got.Notes, "\n")},
		} {
			if diff := cmp.Diff(c.want, c.got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tt.name, diff)
			}
		}
		_, diags := blueprint.Parse("x.hcl", got.Blueprint, blueprint.Options{
			Boards: []blueprint.Board{{Name: "rpi3", Arch: "arm64", WiFi: true}}, Layers: []string{"wifi", "time"},
			VarFiles: []blueprint.VarFile{{Path: "x.vars", Src: got.Variables}},
		})
		if diags.HasErrors() {
			t.Errorf("%s: the blueprint is not valid: %v", tt.name, diags)
		}
	}
}

func TestImportRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                          "cannot find any settings in it",
		"- a\n- b\n":                "cannot read it as YAML",
		"hostname: [a]\nusers: 5\n": "line 1: hostname: ",
	} {
		if _, err := hypriot.Import([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

func FuzzImport(f *testing.F) {
	f.Add([]byte(deviceInit))
	f.Add([]byte(userData))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := hypriot.Import(text)
		if err != nil {
			return
		}
		if _, diags := blueprint.Format("x.hcl", got.Blueprint); diags.HasErrors() {
			t.Fatalf("what was written is no HCL: %v\n%s", diags, got.Blueprint)
		}
	})
}
