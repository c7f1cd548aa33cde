package secrets

import (
	"crypto/ed25519"
	"encoding/pem"

	"golang.org/x/crypto/ssh"
)

// SSHPrivateKey returns key in OpenSSH's own format (PROTOCOL.key in
// OpenSSH's sources), not encrypted. x/crypto/ssh writes it too, but with
// random check bytes, and a card must come out the same each time.
func SSHPrivateKey(key ed25519.PrivateKey, comment string) []byte {
	public := key.Public().(ed25519.PublicKey)
	pub := ssh.Marshal(struct {
		Type string
		Key  []byte
	}{ssh.KeyAlgoED25519, public})
	private := ssh.Marshal(struct {
		Check1, Check2 uint32
		Type           string
		Public         []byte
		Private        []byte
		Comment        string
	}{0x70694375, 0x70694375, ssh.KeyAlgoED25519, public, key, comment})
	for pad := byte(1); len(private)%8 != 0; pad++ {
		private = append(private, pad)
	}
	body := ssh.Marshal(struct {
		Cipher, KDF, KDFOptions string
		Keys                    uint32
		Public                  []byte
		Private                 []byte
	}{"none", "none", "", 1, pub, private})
	return pem.EncodeToMemory(&pem.Block{
		Type:  "OPENSSH PRIVATE KEY",
		Bytes: append([]byte("openssh-key-v1\x00"), body...),
	})
}

// SSHPublicKey returns key's public half as one line of authorized_keys(5),
// without a line end.
func SSHPublicKey(key ed25519.PrivateKey, comment string) string {
	pub, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		panic(err) // ed25519 keys are always known
	}
	line := ssh.MarshalAuthorizedKey(pub)
	text := string(line[:len(line)-1])
	if comment != "" {
		text += " " + comment
	}
	return text
}
