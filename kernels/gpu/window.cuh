// The geometry of a sliding window, convolution's and pooling's alike; its twin is window.py's.
#pragma once

struct Window {
    int C, H, W;    // input channels, height, width
    int OH, OW;     // output height, width
    int KH, KW;     // kernel
    int SH, SW;     // stride
    int DH, DW;     // dilation
    int top, left;  // padding before
};

// Calls use(tap, output) for every window that holds the input pixel (h, v): at which of its KH*KW places, and which of
// the OH*OW outputs is its own. For gradients that gather: a scatter would need atomics, and its sums would vary.
template <class Use>
__device__ inline void each_window_over(int h, int v, const Window& w, Use use) {
    const int row = h + w.top, column = v + w.left;
    for (int kh = 0; kh < w.KH; kh++) {
        const int down = row - kh * w.DH;  // where the window starts that has this pixel at kh, if there is one
        if (down < 0 || down % w.SH || down / w.SH >= w.OH) continue;
        for (int kw = 0; kw < w.KW; kw++) {
            const int across = column - kw * w.DW;
            if (across < 0 || across % w.SW || across / w.SW >= w.OW) continue;
            use(kh * w.KW + kw, down / w.SH * w.OW + across / w.SW);
        }
    }
}
