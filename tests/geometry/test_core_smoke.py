import numpy as np, SimpleITK as sitk
from modalign.geometry import *
def test_sitk():
    rng=np.random.default_rng(0)
    for ndim in (2,3):
        m=Grid((20,31,17)[:ndim],(1.5,.7,2.)[:ndim],(3.,-4,5)[:ndim],as_rows(rotation_matrix(ndim,20)))
        f=Grid((25,22,19)[:ndim],(1.1,.9,1.3)[:ndim],(1.,-2,9)[:ndim],as_rows(rotation_matrix(ndim,-10,(0,1))))
        t=Rigid.about(m.center,rotation_matrix(ndim,15),np.ones(ndim))
        d=rng.random((1,*m.shape)).astype(np.float32)
        for order,it in ((0,sitk.sitkNearestNeighbor),(1,sitk.sitkLinear),(3,sitk.sitkBSpline)):
            out=resample(d,m,f,t,order=order)
            def im(a,g):
                i=sitk.GetImageFromArray(a); i.SetSpacing(g.spacing[::-1]); i.SetOrigin(g.origin[::-1]); i.SetDirection(np.array(g.direction)[::-1,::-1].ravel()); return i
            tr=sitk.AffineTransform(ndim); tr.SetMatrix(t.linear[::-1,::-1].ravel()); tr.SetTranslation(t.offset[::-1].copy())
            ref=sitk.GetArrayFromImage(sitk.Resample(im(d[0],m),im(np.zeros(f.shape,np.float32),f),tr,it,0.0))
            diff=np.abs(np.clip(ref,0,1)-out[0]); print(ndim,order,diff.max(),(out!=0).mean())
