package archive

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/picube/picube-build/builder/debian/control"
)

// keys are the archive keys of Debian 12 and 13 as the package
// debian-archive-keyring 2023.3+deb12u2 installs them.
//
//go:embed keys/*.asc
var keys embed.FS

// DebianKeys returns the keys that Debian signs its archives with.
func DebianKeys() ([]byte, error) {
	names, err := fs.Glob(keys, "keys/*.asc")
	if err != nil {
		return nil, err
	}
	var all []byte
	for _, name := range names {
		b, err := keys.ReadFile(name)
		if err != nil {
			return nil, err
		}
		all = append(append(all, b...), '\n')
	}
	return all, nil
}

// readKeys reads a keyring: any number of armoured blocks, or binary.
func readKeys(b []byte) (openpgp.EntityList, error) {
	const begin = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
	if !bytes.Contains(b, []byte(begin)) {
		list, err := openpgp.ReadKeyRing(bytes.NewReader(b))
		if err == nil && len(list) == 0 {
			err = errors.New("it is empty")
		}
		return list, err
	}
	var all openpgp.EntityList
	for block := range strings.SplitSeq(string(b), begin) {
		if strings.TrimSpace(block) == "" {
			continue
		}
		list, err := openpgp.ReadArmoredKeyRing(strings.NewReader(begin + block))
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	return all, nil
}

// Release is what a suite's signed InRelease file says.
type Release struct {
	Archive    string // Archive.Name
	Suite      string // as it was asked for
	Version    string // "13.7"; "" if the suite has none
	Date       time.Time
	ValidUntil time.Time // zero: for ever
	SHA256     string    // of the InRelease file

	byHash       bool
	notAutomatic bool
	files        map[string]listed
}

// listed is a file that the Release vouches for.
type listed struct {
	sha256 string
	size   int64
}

// verify checks the signature and returns the signed text. One good signature
// by one of the keys is enough: around a new Debian release there are several
// signatures, and not everybody knows all keys.
func verify(inRelease []byte, keyring openpgp.EntityList, now time.Time) (string, error) {
	if !bytes.HasPrefix(inRelease, []byte("-----BEGIN PGP SIGNED MESSAGE-----\n")) {
		return "", errors.New("not a clear-signed file")
	}
	block, rest := clearsign.Decode(inRelease)
	if block == nil {
		return "", errors.New("not a clear-signed file")
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return "", errors.New("unsigned text follows the signature")
	}
	signatures, err := io.ReadAll(io.LimitReader(block.ArmoredSignature.Body, 1<<20))
	if err != nil {
		return "", fmt.Errorf("cannot read the signature: %w", err)
	}
	config := &packet.Config{Time: func() time.Time { return now }}
	var failed []string
	reader := packet.NewReader(bytes.NewReader(signatures))
	for {
		p, err := reader.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return "", fmt.Errorf("cannot read the signature: %w", err)
		}
		signature, ok := p.(*packet.Signature)
		if !ok || signature.IssuerKeyId == nil {
			continue
		}
		var one bytes.Buffer
		if err := signature.Serialize(&one); err != nil {
			return "", fmt.Errorf("cannot read the signature: %w", err)
		}
		if _, err = openpgp.CheckDetachedSignature(keyring, bytes.NewReader(block.Bytes), &one, config); err == nil {
			return string(block.Plaintext), nil
		}
		failed = append(failed, fmt.Sprintf("key %016X: %v", *signature.IssuerKeyId, err))
	}
	if len(failed) == 0 {
		return "", errors.New("it has no signature")
	}
	return "", fmt.Errorf("no good signature: %s", strings.Join(failed, "; "))
}

// readRelease checks an InRelease file in all but time, and reads it.
func readRelease(a *Archive, suite string, inRelease []byte, keyring openpgp.EntityList, now time.Time) (*Release, error) {
	text, err := verify(inRelease, keyring, now)
	if err != nil {
		return nil, err
	}
	p, err := control.Parse(text)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(inRelease)
	r := &Release{
		Archive: a.Name, Suite: suite, Version: p.Get("Version"), SHA256: hex.EncodeToString(sum[:]),
		byHash: p.Get("Acquire-By-Hash") == "yes", notAutomatic: p.Get("NotAutomatic") == "yes",
	}
	if got, codename := p.Get("Suite"), p.Get("Codename"); suite != got && suite != codename {
		return nil, fmt.Errorf("it is of suite %s (%s), not of %s", got, codename, suite)
	}
	if r.Date, err = parseDate(p.Get("Date")); err != nil {
		return nil, fmt.Errorf("field Date: %w", err)
	}
	if until := p.Get("Valid-Until"); until != "" {
		if r.ValidUntil, err = parseDate(until); err != nil {
			return nil, fmt.Errorf("field Valid-Until: %w", err)
		}
	}
	if r.files, err = listedFiles(p.Get("SHA256")); err != nil {
		return nil, fmt.Errorf("field SHA256: %w", err)
	}
	return r, nil
}

// checkTime refuses a Release that is not valid now.
func (r *Release) checkTime(now time.Time) error {
	// Clocks differ a little; a day is somebody's mistake.
	if r.Date.After(now.Add(24 * time.Hour)) {
		return fmt.Errorf("it is of %s, which is in the future: check this computer's clock", minute(r.Date))
	}
	if !r.ValidUntil.IsZero() && now.After(r.ValidUntil) {
		return fmt.Errorf("it expired on %s: the mirror is out of date, or this computer's clock is wrong", minute(r.ValidUntil))
	}
	return nil
}

func minute(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

func parseDate(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC1123, "Mon, 2 Jan 2006 15:04:05 MST", time.RFC1123Z, "Mon, 2 Jan 2006 15:04:05 -0700"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no date", s)
}

func listedFiles(value string) (map[string]listed, error) {
	files := map[string]listed{}
	for _, line := range control.Lines(value) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			return nil, fmt.Errorf("%q is not a digest, a size and a name", line)
		}
		size, err := strconv.ParseInt(fields[1], 10, 64)
		if b, herr := hex.DecodeString(fields[0]); err != nil || size < 0 || herr != nil || len(b) != sha256.Size {
			return nil, fmt.Errorf("%q is not a digest, a size and a name", line)
		}
		files[path.Clean(fields[2])] = listed{strings.ToLower(fields[0]), size}
	}
	return files, nil
}
