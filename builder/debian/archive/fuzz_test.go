package archive

import (
	"bytes"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// FuzzRelease reads damaged InRelease files: nothing that differs from what
// was signed may pass.
func FuzzRelease(f *testing.F) {
	now := time.Unix(1_750_000_000, 0)
	config := &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return now }}
	key, err := openpgp.NewEntity("test", "", "test@example.org", config)
	if err != nil {
		f.Fatal(err)
	}
	const text = "Suite: trixie\nDate: Sun, 15 Jun 2025 15:06:40 UTC\nSHA256:\n" +
		" 0123456789012345678901234567890123456789012345678901234567890123 5 main/binary-arm64/Packages.xz\n"
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, key.PrivateKey, config)
	if err != nil {
		f.Fatal(err)
	}
	w.Write([]byte(text))
	w.Close()
	b.WriteByte('\n')
	a := &Archive{Name: "debian"}
	ring := openpgp.EntityList{key}
	good, err := readRelease(a, "trixie", b.Bytes(), ring, now)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := readRelease(a, "trixie", in, ring, now)
		if err == nil && (r.Date != good.Date || len(r.files) != 1 || r.files["main/binary-arm64/Packages.xz"] != good.files["main/binary-arm64/Packages.xz"]) {
			t.Errorf("got %+v", r)
		}
	})
}

// FuzzSigned reads texts that carry a good signature.
func FuzzSigned(f *testing.F) {
	f.Add(" 0123456789012345678901234567890123456789012345678901234567890123 5 main/x\n")
	f.Fuzz(func(t *testing.T, value string) {
		files, err := listedFiles("\n" + value)
		if err != nil {
			return
		}
		for name, l := range files {
			if l.size < 0 || len(l.sha256) != 64 {
				t.Errorf("%s: %+v", name, l)
			}
		}
	})
}
