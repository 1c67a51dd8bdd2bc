"""Calls of NumPy, CuPy and SciPy as text, and values to make them with: the same text runs on host and device."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import scipy.fft
import scipy.linalg
import scipy.ndimage
import scipy.signal
import scipy.special

from engine import simulated

xp, sp = simulated.xp, simulated.sp
DTYPES = [np.dtype(c) for c in "?bBhHiIlLefdFD"]


class Scipy:
    """SciPy's submodules under the names they have on the device."""

    special, linalg, signal, ndimage, fft = (
        scipy.special,
        scipy.linalg,
        scipy.signal,
        scipy.ndimage,
        scipy.fft,
    )


def hosts() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    square = rng.normal(size=(3, 3))
    return {
        "a": rng.normal(size=(3, 4)).astype(np.float32),
        "b": rng.normal(size=(3, 4)).astype(np.float32),
        "v": rng.normal(size=4).astype(np.float32),
        "w": np.array([0.5, 1.5, -2.0, 3.0]),
        "i": np.array([[3, 1, 2], [0, 5, 4]]),
        "u": np.array([3, 0, 3, 1, 2, 1]),
        "c": (rng.normal(size=(2, 3)) + 1j * rng.normal(size=(2, 3))).astype(np.complex64),
        "m": np.array([[True, False, True, False]] * 3),
        "p": square @ square.T + 3 * np.eye(3),
        "q": rng.normal(size=(2, 3, 3)),
        "t": rng.normal(size=(2, 3, 4)),
        "n": np.array([1.0, np.nan, np.inf, -2.0]),
        "y": np.array([1, 2, 255], np.uint8),
    }


def run(expression: str, module: Any, science: Any, values: dict[str, Any]) -> Any:
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return eval(expression, {"xp": module, "sp": science, "np": np, "math": math, **values})


def on_device(values: dict[str, Any]) -> dict[str, Any]:
    return {name: xp.asarray(value) for name, value in values.items()}


def parts(result: Any) -> list[Any]:
    if isinstance(result, tuple | list):
        return [leaf for item in result for leaf in parts(item)]
    return [result]


AGREEING = """
xp.all(m, axis=0) xp.any(m) xp.allclose(a,a) xp.amax(a,axis=1) xp.amin(a) xp.append(v,w) xp.arange(2,9,3)
xp.argmax(a,axis=1) xp.argmin(a) xp.argwhere(m) xp.array_equal(a,b) xp.array_equiv(a,a) xp.array_split(v,3)
xp.atleast_1d(v) xp.atleast_2d(v) xp.atleast_3d(v) xp.average(a,axis=0) xp.average(w,weights=w*w) xp.bartlett(5)
xp.bincount(u) xp.bincount(u,minlength=9) xp.blackman(5) xp.broadcast_arrays(a,v) xp.broadcast_shapes((3,1),(4,))
xp.choose(xp.asarray([1,0,1]),xp.asarray([[1,2,3],[4,5,6]])) xp.column_stack((v,w)) xp.compress(m[0],a,axis=1)
xp.concat((a,b)) xp.concatenate((a,b),axis=1) xp.convolve(v,w) xp.corrcoef(a) xp.correlate(v,w) xp.count_nonzero(m)
xp.count_nonzero(m,axis=0) xp.cov(a) xp.cross(p,p[::-1]) xp.cumprod(a,axis=0) xp.cumsum(i) xp.cumsum(y)
xp.cumulative_sum(v) xp.cumulative_prod(v) xp.delete(v,1) xp.diag_indices(3) xp.diag_indices_from(p) xp.diagflat(v)
xp.diagonal(a,1) xp.diff(a,axis=0) xp.diff(v,prepend=0.0) xp.digitize(v,xp.asarray([-1.0,0.0,1.0])) xp.dot(p,p)
xp.dsplit(t,2) xp.dstack((a,b)) xp.ediff1d(v) xp.expand_dims(a,(0,2)) xp.extract(m,a) xp.eye(3,4,1) xp.flatnonzero(m)
xp.flip(a,0) xp.fliplr(a) xp.flipud(a) xp.gradient(v) xp.hamming(4) xp.hanning(4) xp.histogram(v,5) xp.hsplit(a,2)
xp.hstack((a,b)) xp.identity(3) xp.indices((2,3)) xp.inner(a,b) xp.interp(w,xp.asarray([0.0,1.0]),xp.asarray([2.0,3.0]))
xp.intersect1d(u,i) xp.iscomplex(c) xp.isin(u,i) xp.isneginf(n) xp.isposinf(n) xp.isreal(c) xp.ix_(u,u) xp.kaiser(4,2.0)
xp.kron(a,v) xp.lexsort(i) xp.linspace(0,1,5) xp.linspace(0,v,3,axis=1) xp.logspace(0,2,3) xp.matrix_transpose(t)
xp.max(a,axis=(0,1)) xp.mean(i) xp.mean(a,axis=0,keepdims=True) xp.median(a,axis=1) xp.meshgrid(v,w)
xp.meshgrid(v,w,indexing='ij') xp.min(i,axis=1) xp.moveaxis(t,0,-1) xp.nanargmax(n) xp.nanargmin(n) xp.nancumprod(n)
xp.nancumsum(n) xp.nanmax(n) xp.nanmean(n) xp.nanmedian(n) xp.nanmin(n) xp.nanprod(n) xp.nanstd(w) xp.nansum(n)
xp.nanvar(w) xp.nonzero(m) xp.ones((2,3),np.int32) xp.outer(v,w) xp.packbits(m) xp.pad(a,((1,1),(0,2)))
xp.pad(a,1,mode='constant',constant_values=3) xp.pad(a,1,mode='reflect') xp.percentile(w,[25,50]) xp.permute_dims(t)
xp.prod(i,axis=1) xp.ptp(a,axis=0) xp.quantile(w,0.3,method='lower') xp.ravel_multi_index((u%3,u%2),(3,2))
xp.real_if_close(a) xp.repeat(a,2,axis=1) xp.repeat(v,xp.asarray([1,0,2,1])) xp.resize(v,(2,3)) xp.roll(a,1,axis=0)
xp.rollaxis(t,2) xp.rot90(a) xp.searchsorted(xp.sort(w),v,side='right') xp.select([m,~m],[a,b],0.0)
xp.setdiff1d(u,i) xp.setxor1d(u,i) xp.split(a,2,axis=1) xp.squeeze(a[:1]) xp.stack((a,b),axis=1) xp.std(a,ddof=1)
xp.sum(a,axis=0) xp.sum(i,dtype=np.float32) xp.sum(y) xp.swapaxes(t,0,1) xp.tensordot(t,t,axes=([0,1],[0,1]))
xp.tile(v,(2,2)) xp.trace(p) xp.transpose(t,(1,2,0)) xp.trapezoid(v,w) xp.tri(3) xp.tril(a,1) xp.tril_indices(3)
xp.tril_indices_from(p) xp.trim_zeros(xp.asarray([0,1,0])) xp.triu(a) xp.triu_indices(3) xp.triu_indices_from(p)
xp.union1d(u,i) xp.unique(u) xp.unique(u,return_index=True,return_inverse=True,return_counts=True) xp.unique_all(u)
xp.unique_counts(u) xp.unique_inverse(u) xp.unique_values(u) xp.unpackbits(y) xp.unravel_index(u,(2,2)) xp.unwrap(v)
xp.vander(v) xp.var(c) xp.vdot(c,c) xp.vsplit(t,2) xp.vstack((a,b)) xp.zeros((2,3)) xp.isclose(a,b)
xp.nan_to_num(n) xp.nan_to_num(n,nan=1.0,posinf=2.0)

xp.angle(c) xp.angle(c,deg=True) xp.argpartition(v,3)[3:] xp.argsort(a,axis=0) xp.around(v,2) xp.round(c,1)
xp.array([[1,2],[3,4]],np.int8) xp.array([1.5,2],ndmin=3) xp.asanyarray([1.5]) xp.asarray([True,False])
xp.asarray(a,dtype=np.float64) xp.ascontiguousarray(a.T) xp.asfortranarray(a) xp.astype(a,np.int32)
xp.broadcast_to(v,(3,4)) xp.can_cast(np.int8,np.int16) xp.clip(a,-0.5,0.5) xp.clip(i,1,3) xp.clip(i,0.5,3)
xp.common_type(a,c) xp.copy(a.T) xp.diag(v) xp.diag(a,1) xp.einsum('ij,kj->ik',a,b) xp.einsum('ii',p)
xp.full((2,2),3) xp.full((2,),1.5,np.float32) xp.full_like(a,2.0) xp.imag(c) xp.real(c) xp.iscomplexobj(c)
xp.isdtype(np.dtype('f4'),'real floating') xp.isfortran(a) xp.isrealobj(a) xp.isscalar(3)
xp.issubdtype(np.int8,np.integer) xp.may_share_memory(a,a[1:]) xp.min_scalar_type(3) xp.ndim(t) xp.ones_like(i)
xp.partition(v,3)[3:] xp.promote_types(np.int8,np.uint8) xp.ravel(a.T) xp.reshape(a,(4,3)) xp.result_type(a,i)
xp.shape(a) xp.shares_memory(a,b) xp.size(a,1) xp.sort(a,axis=0) xp.sort(n) xp.take(a,xp.asarray([2,0]),axis=1)
xp.take(a,3) xp.take_along_axis(a,xp.argsort(a,axis=1),axis=1) xp.where(m,a,b) xp.where(m,a,0.0) xp.where(m)
xp.zeros_like(c)
xp.empty((0,2)).sum() xp.empty_like(a).shape
xp.lib.stride_tricks.sliding_window_view(v,3) xp.lib.stride_tricks.as_strided(a,(2,2),(16,4))

xp.linalg.cholesky(p) xp.linalg.cond(p) xp.linalg.cross(p,p[::-1]) xp.linalg.det(q) xp.abs(xp.linalg.eig(p)[0])
xp.linalg.eigh(p)[0] xp.sort(xp.abs(xp.linalg.eigvals(p))) xp.linalg.eigvalsh(p) xp.linalg.inv(q)
xp.linalg.lstsq(p,p[0]) xp.linalg.matmul(p,p) xp.linalg.matrix_power(p,-2) xp.linalg.matrix_rank(p)
xp.linalg.matrix_transpose(q) xp.linalg.norm(a) xp.linalg.norm(a,ord=2) xp.linalg.norm(q,axis=(1,2),keepdims=True)
xp.linalg.norm(i,ord=1,axis=0) xp.linalg.pinv(a.astype(np.float64)) xp.abs(xp.linalg.qr(p)[1]) xp.linalg.slogdet(q)
xp.linalg.solve(p,p[0]) xp.linalg.solve(q,q) xp.linalg.svd(q,compute_uv=False) xp.linalg.svd(p)[1]
xp.linalg.tensorinv(xp.reshape(xp.eye(6),(6,2,3)),1) xp.linalg.tensorsolve(p,p[0])

xp.fft.fft(a) xp.fft.fft2(a) xp.fft.fftfreq(5,0.5) xp.fft.fftn(t,axes=(0,1)) xp.fft.fftshift(v) xp.fft.hfft(c)
xp.fft.ifft(c) xp.fft.ifft2(c) xp.fft.ifftn(c) xp.fft.ifftshift(v) xp.fft.ihfft(v) xp.fft.irfft(c,n=4)
xp.fft.irfft2(c) xp.fft.irfftn(c) xp.fft.rfft(i) xp.fft.rfft2(a) xp.fft.rfftfreq(5) xp.fft.rfftn(a,s=(2,),axes=(1,))

sp.special.log_softmax(a,axis=1) sp.special.logsumexp(a,axis=1,keepdims=True) sp.special.multigammaln(w[-1],1)
sp.special.polygamma(xp.asarray([1]),w[:2]) sp.special.softmax(a,axis=1) sp.special.erf(a) sp.special.gammaln(w)
sp.special.digamma(w) sp.special.expit(a) sp.special.xlogy(w,w) sp.special.zeta(w+2,1.0) sp.special.log_ndtr(v)
sp.linalg.block_diag(p,a) sp.linalg.circulant(v) sp.linalg.companion(v) sp.linalg.dft(3) sp.linalg.expm(p)
sp.linalg.hadamard(4) sp.linalg.hankel(v) sp.linalg.hilbert(3) sp.linalg.khatri_rao(a,b) sp.linalg.toeplitz(v,w)
sp.linalg.lu(p) sp.linalg.lu_factor(p) sp.linalg.lu_solve(sp.linalg.lu_factor(p),p[0])
sp.linalg.solve_triangular(p,p[0]) sp.linalg.solve_triangular(p,p,trans=1,lower=True,unit_diagonal=True)
sp.signal.convolve(a,b) sp.signal.convolve2d(a,b,mode='same') sp.signal.correlate(a,b) sp.signal.correlate2d(a,b)
sp.signal.fftconvolve(a,b) sp.signal.medfilt(v) sp.signal.oaconvolve(v,w)
sp.ndimage.convolve(a,b) sp.ndimage.convolve1d(a,v) sp.ndimage.correlate(a,b) sp.ndimage.correlate1d(a,v)
sp.ndimage.gaussian_filter(a,1.0) sp.ndimage.map_coordinates(a,i[:,:2]*0.3) sp.ndimage.maximum_filter(a,size=2)
sp.ndimage.median_filter(a,size=2) sp.ndimage.minimum_filter(a,size=2) sp.ndimage.rotate(a,30.0)
sp.ndimage.shift(a,1.0) sp.ndimage.sobel(a) sp.ndimage.uniform_filter(a) sp.ndimage.zoom(a,2.0)
sp.fft.dct(w) sp.fft.dctn(a) sp.fft.dst(w) sp.fft.dstn(a) sp.fft.fft(a) sp.fft.fft2(a) sp.fft.fftfreq(4) sp.fft.fftn(a)
sp.fft.fftshift(v) sp.fft.hfft(c) sp.fft.hfft2(c) sp.fft.hfftn(c) sp.fft.idct(w) sp.fft.idctn(a) sp.fft.idst(w)
sp.fft.idstn(a) sp.fft.ifft(c) sp.fft.ifft2(c) sp.fft.ifftn(c) sp.fft.ifftshift(v) sp.fft.ihfft(v) sp.fft.ihfft2(a)
sp.fft.ihfftn(a) sp.fft.irfft(c) sp.fft.irfft2(c) sp.fft.irfftn(c) sp.fft.rfft(v) sp.fft.rfft2(a) sp.fft.rfftfreq(4)
sp.fft.rfftn(a)

a+b a-1 2*a a/b a//2 a%b a**2 a**0.5 w**-1.0 i**2 2**u divmod(i,2) a@b.T i<<1 i>>1 i&3 u|1 u^u -a +a abs(a) ~m a<b a<=0
a==b a!=b a>b a>=b m&m 1-a 1/a y+y y*2 m+1 a*1j i/2
a.all() a.any(axis=0) a.argmax(axis=1) a.argmin() a.argsort() a.astype(np.int64) a.clip(0,1) a.compress(m[:,0],axis=0)
a.conj() c.conj() a.copy() a.cumprod(axis=0) a.cumsum() a.diagonal() p.dot(p) a.flatten() a.max(axis=0) a.mean() a.min()
m.nonzero() a.prod() a.ptp(axis=1) a.ravel() a.repeat(2) a.reshape(2,6) a.reshape((4,3)) a.reshape(-1) a.round(1)
xp.sort(w).searchsorted(v) a[:1].squeeze() a.std() a.sum(axis=1,keepdims=True) t.swapaxes(0,2) a.take(2)
a.take(xp.asarray([1]),axis=0) p.trace() t.transpose(2,0,1) a.transpose() a.var(axis=0) a.view(np.int32)
c.view(np.float32) c.real c.imag a.T t.mT a.tolist() a.shape a.strides a.nbytes a.itemsize a.size a.ndim a.dtype
a[1] a[1,2] a[...,None] a[::2,::-1] a[None,1:] a[xp.asarray([2,0])] a[:,xp.asarray([3,1])] t[:,xp.asarray([1,0]),1]
t[0,:,xp.asarray([1,0])] t[xp.asarray([[0],[1]]),:,xp.asarray([0,2])] a[m] a[m[:,0]] t[:,m[:,:]] a[xp.asarray([-1,0])]
t[m[0,:2],:,xp.asarray([1])] a[xp.asarray(1)] t[0,xp.asarray([1,2])] u[xp.asarray([],np.int64)]
"""

# Served by the function of the same name, with no line of their own in the stand-in.
GENERIC = """
xp.histogram2d(v,w,3) xp.poly(w) xp.polyval(w,v) xp.roots(w) xp.sort_complex(w) xp.polyfit(w,w,1)
sp.special.spherical_yn(xp.asarray([0]),w[:1]) sp.linalg.bandwidth(p) sp.linalg.fiedler(w) sp.linalg.leslie(w,w[1:])
sp.linalg.convolution_matrix(w,3) sp.linalg.helmert(4) sp.signal.lfilter(w[:1],w[1:2],w) sp.signal.firwin(5,0.3)
sp.signal.detrend(w) sp.signal.hilbert(w) sp.signal.get_window('hann',8) sp.signal.resample(w,3) sp.signal.butter(2,0.2)
sp.signal.find_peaks(w)[0] sp.signal.periodogram(w) sp.signal.unit_impulse(5,2) sp.signal.windows.hann(7)
sp.signal.windows.kaiser(6,beta=8.0) sp.signal.windows.general_cosine(5,[0.5,0.5])
sp.signal.windows.gaussian(5,1.0,sym=False)
sp.signal.windows.blackman(6) sp.signal.windows.bartlett(6) sp.signal.windows.nuttall(6)
sp.signal.windows.exponential(6)
sp.ndimage.laplace(a) sp.ndimage.label(m)[0] sp.ndimage.binary_erosion(m) sp.ndimage.grey_dilation(a,size=(2,2))
sp.ndimage.sum(w) sp.ndimage.prewitt(a) sp.ndimage.gaussian_filter1d(w,1.0) sp.ndimage.distance_transform_edt(m)
sp.ndimage.uniform_filter1d(w,3) sp.fft.fht(w,0.1,0.0)
"""


def expressions(text: str = AGREEING) -> list[str]:
    """The calls above: separated by blanks outside of parentheses and strings."""
    found, depth, current = [], 0, ""
    for line in text.splitlines():
        for token in line.split(" "):
            current = f"{current} {token}".strip() if depth else token
            depth = sum(current.count(o) for o in "([") - sum(current.count(o) for o in ")]")
            if not depth and current:
                found.append(current)
                current = ""
    return found
