package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

func accounts(t *testing.T, src string) []Account {
	t.Helper()
	p := newPlan(t, "x.hcl", []byte(src))
	return p.Accounts(func(cluster, secret string) string { return digestOf(cluster + secret) })
}

// TestChanges goes from one blueprint to another.
func TestChanges(t *testing.T) {
	const first = `cube "alpha" {
  nodes = 3
  kubernetes {
    backups { every = "1h" }
  }
  user "anne" { password_hash = "$6$salt$digest" }
  wifi {
    ssid    = "WLAN"
    psk     = "correct horse"
    country = "DE"
  }
  display "console" { on = ["rpi1"] }
}
`
	replace := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(first) }
	var out bytes.Buffer
	for _, step := range []struct{ what, to string }{
		{"nothing", first},
		{"a cube more", first + "cube \"beta\" { nodes = 2 }\n"},
		{"a cube more, with a cluster of its own", first + "cube \"beta\" {\n  nodes = 1\n  control_plane = 1\n}\n"},
		{"a node more, another package", replace("nodes = 3", "nodes = 4\n  packages = [\"htop\"]")},
		{"a node less", replace("nodes = 3", "nodes = 2")},
		{"another version", replace("kubernetes {", "kubernetes {\n  version = \"1.35.0\"")},
		{"other subnets", replace("kubernetes {", "kubernetes {\n  pod_subnet = \"10.200.0.0/16\"")},
		{"three control planes", replace("kubernetes {", "kubernetes {\n  control_plane = 3")},
		{"secrets", replace("$6$salt$digest", "$6$salt$other", "correct horse", "battery staple")},
		{"displays, backups", replace(`on = ["rpi1"]`, `on = ["rpi2"]`, "1h", "2h")},
		{"a fan", replace("nodes = 3", "nodes = 3\n  fan \"gpio\" {}")},
		{"labels", replace("nodes = 3", "nodes = 3\n  node \"rpi2\" { labels = { disk = \"ssd\" } }")},
		{"another name", replace("nodes = 3", "nodes = 3\n  hostname = \"pi${node.number}\"\n", "rpi1", "pi1")},
	} {
		fmt.Fprintf(&out, "# %s\n", step.what)
		Compare(accounts(t, first), accounts(t, step.to)).print(&out)
	}
	golden(t, "testdata/changes.golden", out.String())
}

func TestAccountsHoldNoSecret(t *testing.T) {
	src, err := os.ReadFile("testdata/cluster.hcl")
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(accounts(t, string(src)))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"correct horse", "$6$"} {
		if bytes.Contains(text, []byte(secret)) {
			t.Errorf("%q stands in %s", secret, text)
		}
	}
}

func TestCompareWithoutAccount(t *testing.T) {
	is := accounts(t, `cube "alpha" { nodes = 1 }`)
	c := Compare([]Account{{Node: "rpi1", Cube: "alpha"}}, is)
	if len(c.Cards) != 1 || c.Cards[0].Action != Ask || c.Notes != nil {
		t.Errorf("%+v", c)
	}
}
