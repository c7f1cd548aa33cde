package statusd

import (
	"net"
	"path/filepath"
	"testing"
	"time"
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

func TestSteady(t *testing.T) {
	now := time.Unix(0, 0)
	l := &Live{Now: func() time.Time { return now }}
	searching, away := WiFi{State: "searching"}, WiFi{State: WrongPassword, SSID: "WLAN"}
	for i, tt := range []struct {
		after    time.Duration
		is, want WiFi
	}{
		{0, searching, searching},
		{time.Second, away, away},
		{10 * time.Second, searching, away},
		{10 * time.Second, away, away},
		{29 * time.Second, searching, away},
		{29 * time.Second, searching, searching}, // nobody turns it away any more
		{time.Second, away, away},
		{time.Second, WiFi{State: "connected", SSID: "other"}, WiFi{State: "connected", SSID: "other"}},
		{time.Second, searching, searching},
	} {
		now = now.Add(tt.after)
		if got := l.steady(tt.is); got != tt.want {
			t.Errorf("%d: %v, want %v", i, got, tt.want)
		}
	}
}
