package kubeadmd

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// sandboxMessage is a PodSandbox, with fields that nobody here reads.
func sandboxMessage(id string, state uint64, created int64) []byte {
	b := protowire.AppendString(protowire.AppendTag(nil, criID, protowire.BytesType), id)
	b = protowire.AppendBytes(protowire.AppendTag(b, 2, protowire.BytesType), []byte("\x0a\x04etcd")) // metadata
	if state != criReady {
		b = protowire.AppendVarint(protowire.AppendTag(b, criState, protowire.VarintType), state)
	}
	b = protowire.AppendVarint(protowire.AppendTag(b, criCreatedAt, protowire.VarintType), uint64(created))
	return protowire.AppendFixed32(protowire.AppendTag(b, 99, protowire.Fixed32Type), 7)
}

func framed(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

func TestContainerd(t *testing.T) {
	created := time.Date(2026, 11, 22, 23, 42, 0, 77, time.UTC)
	var list []byte
	for _, s := range [][]byte{sandboxMessage("aa", criReady, created.UnixNano()), sandboxMessage("bb", 1, 0)} {
		list = protowire.AppendBytes(protowire.AppendTag(list, criItems, protowire.BytesType), s)
	}
	var removed []string
	answers := map[string][]byte{"/runtime.v1.RuntimeService/ListPodSandbox": framed(list), "/runtime.v1.RuntimeService/RemovePodSandbox": framed(nil)}
	var h2c http.Protocols
	h2c.SetUnencryptedHTTP2(true)
	server := &http.Server{Protocols: &h2c, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("Content-Type") != "application/grpc" || r.Header.Get("Te") != "trailers" || len(body) < 5 {
			http.Error(w, "not gRPC", http.StatusUnsupportedMediaType)
			return
		}
		if strings.HasSuffix(r.URL.Path, "RemovePodSandbox") {
			removed = append(removed, string(body[5:]))
		}
		answer, ok := answers[r.URL.Path]
		if !ok || bytes.Contains(body, []byte("busy")) {
			w.Header().Set("Grpc-Status", "9")
			w.Header().Set("Grpc-Message", "in use%3A 100%25")
			return
		}
		w.Write(answer)
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	})}
	c := Containerd{Socket: filepath.Join(t.TempDir(), "c.sock")}
	listener, err := net.Listen("unix", c.Socket)
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(listener)
	defer server.Close()

	want := map[string]Sandbox{"aa": {Created: time.Unix(0, created.UnixNano())}, "bb": {Created: time.Unix(0, 0), Ended: true}}
	if got, err := c.Sandboxes(t.Context()); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("sandboxes: %v, %v; want %v", got, err, want)
	}
	if err := c.Remove(t.Context(), "bb"); err != nil || len(removed) != 1 || removed[0] != "\x0a\x02bb" {
		t.Errorf("removed %q: %v", removed, err)
	}
	if err := c.Remove(t.Context(), "busy"); err == nil || !strings.Contains(err.Error(), `RemovePodSandbox: 200 OK, status "9": in use: 100%`) {
		t.Errorf("one that can't be: %v", err)
	}
	for name, answer := range map[string][]byte{
		"nothing": nil, "cut off": framed(list)[:20], "two messages": append(framed(list), framed(list)...),
		"not a message": framed([]byte{0xff, 0xff}), "a short field": framed([]byte{0x0a, 0x09, 0x0a}), "compressed": append([]byte{1}, framed(list)[1:]...),
	} {
		answers["/runtime.v1.RuntimeService/ListPodSandbox"] = answer
		if got, err := c.Sandboxes(t.Context()); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// What containerd says is only bytes to this program.
func FuzzFields(f *testing.F) {
	f.Add(sandboxMessage("aa", 1, 5))
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, message []byte) {
		told := 0
		_ = fields(message, func(_ protowire.Number, text []byte, _ uint64) error {
			told += len(text)
			return nil
		})
		if told > len(message) {
			t.Errorf("%d bytes of a message of %d", told, len(message))
		}
	})
}
