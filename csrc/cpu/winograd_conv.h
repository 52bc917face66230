// Winograd's method for pictures of a batch (n, height, width, channels): 3 x 3 kernels in windows
// of 2 x 2 or 4 x 4 outputs, 5 x 5 kernels in windows of 2 x 2; stride 1, dilation 1, one group.
// A window takes 16 or 36 products per channel and filter where the sums take 36, 144 or 100 (Lavin
// and Gray, Fast Algorithms for Convolutional Neural Networks, 2015):
//
//   z = A' [(G w G') * (B' d B)] A          of a patch d and a kernel w, * place by place
//   dw = G' [(B' d B) * (A dz A')] G        the gradient of w, added over all windows
//
// with A, B and G of winograd_axis.h. dx is the convolution of dy with the turned kernel. For each
// place the products of all windows, channels and filters are one matrix product.
//
// Differences of a window's patch meet in its outputs: what is not finite there may make NaN of all
// of them, and of dkernel.
#pragma once

#include "context.h"
#include "epilogue.h"
#include "specs.h"

namespace convkit {
namespace CONVKIT_ISA {

enum class WinogradPass { kForward, kBackwardInput, kBackwardKernel };

// How far a result may be from the true one. With eps half the distance from 1 to the next number,
//
//   error <= winograd_error() * (terms + 32) * eps * sum over the terms of largest * weight
//
// forward: a term is a channel, largest |x| in the window's patch and weight the sum of |w| over
// the taps; backward_input: the same of the convolution that makes dx; backward_kernel: a term is a
// window, largest |x| in its patch and weight the sum of |dy| in it. The sums' own bound is that of
// terms * taps * taps roundings, with |x| itself in place of the largest: an output whose own
// values are small beside the others of its patch has errors of their size.
//
// The factor is the most by which the transforms, with all signs alike, exceed their result: the
// square of that of an axis, max over outputs i and taps k of sum over places p and values j of
// |A'(i, p)| |G(p, k)| |B'(p, j)|, which are 4, 13.25 and 14.32. 32 is more than the roundings of
// the transforms (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1; Barabasz and
// others, 2020). On normal numbers, errors are 0.6, 1.8 and 1.3 times those of the sums.
static constexpr double winograd_error(int64_t outputs, int64_t taps) {
    return taps == 5 ? 205 : outputs == 2 ? 16 : 176;
}

// Whether these functions can be used for `s` in windows of outputs x outputs (2 or 4).
bool winograd_possible(const Conv2d& s, int64_t outputs);

// y (n, out_height, out_width, filters), or pooled; bias may be null. Where the context keeps what
// is made of weights, they are transformed once.
template <class T>
void conv2d_winograd(const Context& context, const Conv2d& s, int64_t outputs, int64_t n,
                     const T* x, const T* kernel, const T* bias, Epilogue<T> epilogue, T* y);

template <class T>
void conv2d_winograd_backward_input(const Context& context, const Conv2d& s, int64_t outputs,
                                    int64_t n, const T* dy, const T* kernel, T* dx);

// dbias may be null.
template <class T>
void conv2d_winograd_backward_kernel(const Context& context, const Conv2d& s, int64_t outputs,
                                     int64_t n, const T* dy, const T* x, T* dkernel, T* dbias);

}  // namespace CONVKIT_ISA
}  // namespace convkit
