package kubeadmd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Containerd asks containerd in the words of the Container Runtime Interface
// (k8s.io/cri-api, pkg/apis/runtime/v1/api.proto) over gRPC (grpc/grpc,
// doc/PROTOCOL-HTTP2.md). It is written by hand, since gRPC's own library would
// take a good part of the memory that the node's daemons may have, for two
// questions with three fields.
type Containerd struct {
	Socket string // empty: containerd's own
}

const (
	containerdSocket = "/run/containerd/containerd.sock"
	criTimeout       = 5 * time.Minute // one with a slow card under it
	maxCRIAnswer     = 16 << 20
)

// Field numbers of ListPodSandboxResponse, PodSandbox and RemovePodSandboxRequest.
const (
	criItems, criID, criState, criCreatedAt = 1, 1, 3, 4
	criReady                                = 0 // PodSandboxState
)

// Sandboxes implements Runtime.
func (c Containerd) Sandboxes(ctx context.Context) (map[string]Sandbox, error) {
	answer, err := c.call(ctx, "ListPodSandbox", nil)
	if err != nil {
		return nil, err
	}
	out := map[string]Sandbox{}
	err = fields(answer, func(number protowire.Number, item []byte, _ uint64) error {
		if number != criItems {
			return nil
		}
		id, s := "", Sandbox{}
		err := fields(item, func(number protowire.Number, text []byte, value uint64) error {
			switch number {
			case criID:
				id = string(text)
			case criState:
				s.Ended = value != criReady
			case criCreatedAt:
				s.Created = time.Unix(0, int64(value))
			}
			return nil
		})
		out[id] = s
		return err
	})
	return out, err
}

// Remove implements Runtime.
func (c Containerd) Remove(ctx context.Context, sandbox string) error {
	request := protowire.AppendTag(nil, criID, protowire.BytesType)
	_, err := c.call(ctx, "RemovePodSandbox", protowire.AppendString(request, sandbox))
	return err
}

// fields tells of each field of a message: a text or a message, or a number.
func fields(message []byte, tell func(number protowire.Number, text []byte, value uint64) error) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		var text []byte
		var value uint64
		switch kind {
		case protowire.BytesType:
			text, n = protowire.ConsumeBytes(message)
		case protowire.VarintType:
			value, n = protowire.ConsumeVarint(message)
		default:
			n = protowire.ConsumeFieldValue(number, kind, message)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		if err := tell(number, text, value); err != nil {
			return err
		}
	}
	return nil
}

// call calls a method of the runtime's service, with one message each way.
func (c Containerd) call(ctx context.Context, method string, message []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, criTimeout)
	defer cancel()
	socket := c.Socket
	if socket == "" {
		socket = containerdSocket
	}
	var plain http.Protocols
	plain.SetUnencryptedHTTP2(true)
	client := http.Client{Transport: &http.Transport{
		Protocols: &plain,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	defer client.CloseIdleConnections()
	// One byte for "not compressed", four for the length.
	body := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://containerd/runtime.v1.RuntimeService/"+method, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("containerd: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxCRIAnswer))
	if err != nil {
		return nil, fmt.Errorf("containerd: %s: %w", method, err)
	}
	// A method that failed may have no message, and say so in the header.
	said := resp.Trailer
	if resp.Header.Get("Grpc-Status") != "" {
		said = resp.Header
	}
	if status := said.Get("Grpc-Status"); status != "0" {
		text, err := url.PathUnescape(said.Get("Grpc-Message"))
		if err != nil {
			text = said.Get("Grpc-Message")
		}
		return nil, fmt.Errorf("containerd: %s: %s, status %q: %s", method, resp.Status, status, text)
	}
	if len(answer) < 5 || answer[0] != 0 || uint64(binary.BigEndian.Uint32(answer[1:])) != uint64(len(answer)-5) {
		return nil, fmt.Errorf("containerd: %s: %w", method, errNoMessage)
	}
	return answer[5:], nil
}

var errNoMessage = errors.New("cannot read its answer: it is not one message")
