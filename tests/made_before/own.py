import torch
from torch import nn

import stresslens as sl


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        return self.layer(x.flatten(1))


if __name__ == "__main__":
    torch.manual_seed(0)
    x = torch.rand(6, 1, 2, 2)
    net = Net()
    y = net(x).argmax(1)
    r = sl.attack(net, x, y, radii=[0.1], protocol=["fgsm"], alone=["fgsm"], passes=1, out="own")
    print(r.facts["curve"])
