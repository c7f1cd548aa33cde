package statusd

import (
	"net"
	"path/filepath"
	"testing"
)

// TestWiFi is the supplicant's side.
func TestWiFi(t *testing.T) {
	name := filepath.Join(t.TempDir(), "wlan0")
	if w, ok := wifi(name); ok {
		t.Errorf("without a supplicant: %v", w)
	}
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	go func() {
		question := make([]byte, 100)
		for {
			n, from, err := socket.ReadFromUnix(question)
			if err != nil {
				return
			}
			answer := map[string]string{
				"STATUS":        "wpa_state=COMPLETED\nssid=WLAN\n",
				"LIST_NETWORKS": "network id / ssid / bssid / flags\n0\tWLAN\tany\t[CURRENT]\n",
			}[string(question[:n])]
			if _, err := socket.WriteToUnix([]byte(answer), from); err != nil {
				t.Error(err)
			}
		}
	}()
	for range 2 {
		if w, ok := wifi(name); !ok || w != (WiFi{State: "connected", SSID: "WLAN"}) {
			t.Errorf("%v %v", w, ok)
		}
	}
}
