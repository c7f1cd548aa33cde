package blueprint

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
)

func TestRaspios(t *testing.T) {
	o := testOptions()
	o.Boards = append(o.Boards, Board{Name: "q", NotOnRaspios: "It is no Pi."}, Board{Name: "new", NotOnDebian: "It is too new."})
	parse := func(cube string) (*Blueprint, string) {
		bp, diags := Parse("x.hcl", fmt.Appendf(nil, "cube \"a\" {\nnodes = 1\n%s\n}\n", cube), o)
		var all []string
		for _, d := range diags {
			all = append(all, d.Summary+": "+d.Detail)
		}
		return bp, strings.Join(all, "\n")
	}
	bp, diags := parse("board = \"new\"\nbase \"raspios\" {}\narchive \"more\" {\nurl = \"http://x.example.org\"\nsuites = [\"a\"]\nkey = \"" + keyBegin + "\"\n}")
	if diags != "" {
		t.Fatal(diags)
	}
	base := bp.Cubes[0].Base
	if base.Kind != BaseRaspios || base.Suite != "trixie" || len(base.Archives) != 2 || base.Archives[1].Name != "more" {
		t.Errorf("got %+v", base)
	}
	raspi := base.Archives[0]
	if raspi.Name != "raspi" || raspi.URL != "http://archive.raspberrypi.com/debian" || raspi.Suites[0] != "trixie" || raspi.Priority != DefaultPriority {
		t.Errorf("got %+v", raspi)
	}
	keys, err := openpgp.ReadArmoredKeyRing(strings.NewReader(raspi.Key))
	if err != nil || len(keys) != 1 || fmt.Sprintf("%X", keys[0].PrimaryKey.Fingerprint) != "CF8A1AF502A2AA2D763BAE7E82B129927FA3303E" {
		t.Errorf("the key: %v, %v", keys, err)
	}
	for _, tt := range []struct{ cube, want string }{
		{"board = \"q\"\nbase \"raspios\" {}", `Board can't start on this base: The node "rpi1" is a q: It is no Pi.`},
		{"base \"raspios\" {}\narchive \"raspi\" {\nurl = \"http://x.example.org\"\nsuites = [\"a\"]\nkey = \"" + keyBegin + "\"\n}",
			`Reserved archive name: "raspi" is the archive of the base "raspios". Choose another name.`},
		{"base \"raspios\" {\nraspi_mirror = \"ftp://x\"\nraspi_key = \"x\"\n}", `Invalid URL: "raspi_mirror" must begin with http:// or https:// and a host, not "ftp://x".
Invalid key: "raspi_key" is an armoured OpenPGP public key (-----BEGIN PGP PUBLIC KEY BLOCK----- …), most often file("archive.asc").`},
		{"base \"debian\" {\nraspi_mirror = \"http://x\"\n}", `Unsupported argument: An argument named "raspi_mirror" is not expected here.`},
	} {
		if _, got := parse(tt.cube); got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.cube, got, tt.want)
		}
	}
}
